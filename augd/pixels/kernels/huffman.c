/* Huffman decoding with few branches that a processor can mispredict: they cost most of the time.
 *
 * The zeros that are stuffed after FF are removed beforehand, some kilobytes at a time. Bits are kept
 * left-aligned in 64, and refilled without a branch, once for several lookups. The next bits index two
 * tables.
 *
 *   look: one symbol. From the low end: 8 bits length, 8 bits run (the zeros before), 16 bits value
 *     whole     run < SPECIAL: length of code and value together
 *     special   length is the code's, value is the symbol RRRRSSSS: end of block, 16 zeros, or a
 *               coefficient whose bits lie beyond the lookup
 *     0         the code is longer than the lookup: found by comparing with the end of each length
 *
 *   leap: all symbols that lie whole in these bits; only where they end counts. From the low end: 4
 *     bits length, 7 bits places passed, 1 bit end of block. For MCUs beside or above the region, half
 *     of all in a random crop: only their DC values are needed, as predictions. A leap may not pass
 *     the end of its block, where a DC code would be taken for an AC one.
 *
 * Tried and rejected: pairs of coefficients in one lookup, 2 % faster at best.
 *
 * Broken data is an error at once: no grey rest is shown as an image. Zeros for one MCU follow the data;
 * each MCU checks once whether one of them was used.
 */
#include "kernels.h"

#if AUGD_OWN_ENTROPY

#include "huffman.h"

#include <jerror.h>
#include <string.h>

enum {
    LOOKUPS_PER_REFILL = 5,
    WORTH_LEAPS = 512, /* blocks that are passed symbol by symbol while two tables are made */
};

/* Zigzag to natural order. A run may lead past the block's end; libjpeg lets that pass too. */
static const uint8_t natural_order[AUGD_BLOCK_SIZE + 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

/* An FF in the data is followed by 00; FF bytes before a marker are fill bytes (T.81, B.1.1.5). */
static uint8_t *unstuff(AugdEntropy *entropy, uint8_t *to, const uint8_t *to_end) {
    const uint8_t *source = entropy->source, *end = entropy->source_end;
    while (to < to_end && source < end) {
        const size_t most = (size_t)(to_end - to < end - source ? to_end - to : end - source);
        const uint8_t *found = memchr(source, 0xFF, most);
        const size_t plain = found ? (size_t)(found - source) : most;
        memcpy(to, source, plain);
        to += plain;
        source += plain;
        if (!found) continue;
        const uint8_t *after = source + 1;
        while (after < end && *after == 0xFF) after++;
        if (after == end || *after != 0) break;
        *to++ = 0xFF;
        source = after + 1;
    }
    entropy->is_at_marker = to < to_end;
    entropy->source = source;
    return to;
}

/* Have zeros from `from` on. Short segments leave most of those of the one before as they are. */
static void keep_zeros(AugdEntropy *entropy, uint8_t *from, size_t size) {
    uint8_t *const end = from + size;
    if (entropy->zeros_end <= from || entropy->zeros > end) entropy->zeros = entropy->zeros_end = end;
    if (entropy->zeros > from) memset(from, 0, (size_t)(entropy->zeros - from));
    if (entropy->zeros_end < end) memset(entropy->zeros_end, 0, (size_t)(end - entropy->zeros_end));
    entropy->zeros = from;
    if (entropy->zeros_end < end) entropy->zeros_end = end;
}

/* Have at least an MCU's bytes in `data`, or all that there are with zeros behind. */
static void fill(AugdEntropy *entropy) {
    uint8_t *to = entropy->data;
    const size_t num_left = entropy->end > entropy->next ? (size_t)(entropy->end - entropy->next) : 0;
    memmove(to, entropy->next, num_left);
    to = unstuff(entropy, to + num_left, entropy->data + AUGD_DATA_BYTES);
    entropy->next = entropy->data;
    entropy->end = to;
    keep_zeros(entropy, to, entropy->is_at_marker ? AUGD_MCU_BYTES : 0);
}

/* How many bits there are before the next marker; less than 0 when zeros behind them were taken. */
static int64_t count_left(const AugdEntropy *entropy) {
    return (entropy->end - entropy->next) * 8 + entropy->num_bits;
}

/* The bits of a scan, kept in registers while an MCU is decoded. */
typedef struct {
    const uint8_t *next;
    uint64_t bits;
    int num_bits;
} Bits;

static inline uint64_t load_big_endian(const uint8_t *from) {
    uint64_t bytes;
    memcpy(&bytes, from, sizeof bytes);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return bytes;
#else
    return __builtin_bswap64(bytes);
#endif
}

/* Have at least 56 bits: enough for five lookups, or for a code of 16 bits and its value. */
static inline void refill(Bits *in) {
    in->bits |= load_big_endian(in->next) >> in->num_bits;
    in->next += (63 - in->num_bits) >> 3;
    in->num_bits |= 56;
}

static inline void drop(Bits *in, int length) {
    in->bits <<= length;
    in->num_bits -= length;
}

static inline int take(Bits *in, int length) {
    int taken = (int)(in->bits >> (64 - length));
    drop(in, length);
    return taken;
}

static inline int32_t look(const Bits *in, const AugdTable *table) {
    return table->look[in->bits >> (64 - AUGD_LOOK_BITS)];
}

/* Take a code whose entry holds no whole coefficient; -1 when there is none. */
static __attribute__((noinline)) int find_long(const AugdTable *table, uint64_t bits, int *length) {
    int code = (int)(bits >> (64 - AUGD_MAX_CODE_BITS));
    for (int found = AUGD_LOOK_BITS + 1; found <= AUGD_MAX_CODE_BITS; found++)
        if (code < table->code_end[found]) {
            *length = found;
            int place = (code >> (AUGD_MAX_CODE_BITS - found)) + table->place_offset[found];
            return table->symbols[place & 255];
        }
    return -1;
}

static inline int take_symbol(Bits *in, const AugdTable *table, int32_t entry) {
    int length = augd_length_of(entry), symbol = augd_value_of(entry);
    if (entry == 0 && (symbol = find_long(table, in->bits, &length)) < 0) return -1;
    drop(in, length);
    return symbol;
}

/* Where a symbol leaves its block: going on, at its end, or at bits that are no code. */
typedef enum { GOES_ON, ENDS, BREAKS } Step;

static inline Step take_special(Bits *in, const AugdTable *ac, int32_t entry, JCOEF *block,
                                int *place) {
    if (in->num_bits < 32) refill(in);
    int symbol = take_symbol(in, ac, entry);
    if (symbol < 0) return BREAKS;
    int size = symbol & 15;
    if (size == 0) {
        *place += 16;
        return symbol == AUGD_ZEROS_16 ? GOES_ON : ENDS;
    }
    *place += symbol >> 4;
    int value = augd_extend(take(in, size), size);
    if (block) block[natural_order[*place]] = (JCOEF)value;
    ++*place;
    return GOES_ON;
}

static inline bool take_dc(Bits *in, const AugdTable *dc, int *last_dc) {
    refill(in);
    int32_t entry = look(in, dc);
    int difference = augd_value_of(entry);
    if (augd_is_whole(entry)) {
        drop(in, augd_length_of(entry));
    } else {
        int size = take_symbol(in, dc, entry);
        if (size < 0) return false;
        difference = size ? augd_extend(take(in, size), size) : 0;
    }
    /* Unsigned, as a hostile file may let it overflow. */
    *last_dc = (int)((unsigned)*last_dc + (unsigned)difference);
    return true;
}

/* A lookup takes 11 bits at most, of the 56 that are there after a refill. */
static inline bool take_block(Bits *in, const AugdTable *ac, JCOEF *block) {
    for (int place = 1; place < AUGD_BLOCK_SIZE;) {
        refill(in);
        for (int turn = 0; turn < LOOKUPS_PER_REFILL && place < AUGD_BLOCK_SIZE; turn++) {
            const int32_t entry = look(in, ac);
            if (__builtin_expect(!augd_is_whole(entry), 0)) {
                const Step step = take_special(in, ac, entry, block, &place);
                if (step != GOES_ON) return step == ENDS;
                break;
            }
            drop(in, augd_length_of(entry));
            place += augd_run_of(entry);
            block[natural_order[place++]] = (JCOEF)augd_value_of(entry);
        }
    }
    return true;
}

static inline bool pass_block(Bits *in, const AugdTable *ac) {
    for (int place = 1; place < AUGD_BLOCK_SIZE;) {
        refill(in);
        for (int turn = 0; turn < LOOKUPS_PER_REFILL && place < AUGD_BLOCK_SIZE; turn++) {
            const int32_t entry = look(in, ac);
            if (__builtin_expect(!augd_is_whole(entry), 0)) {
                const Step step = take_special(in, ac, entry, NULL, &place);
                if (step != GOES_ON) return step == ENDS;
                break;
            }
            drop(in, augd_length_of(entry));
            place += augd_run_of(entry) + 1;
        }
    }
    return true;
}

static inline bool leap_block(Bits *in, const AugdTable *ac) {
    for (int place = 1; place < AUGD_BLOCK_SIZE;) {
        refill(in);
        for (int turn = 0; turn < LOOKUPS_PER_REFILL; turn++) {
            const unsigned leap = ac->leap[in->bits >> (64 - AUGD_LEAP_BITS)];
            const int passed = (int)(leap >> 4 & 0x7F);
            if (__builtin_expect(place + passed >= AUGD_BLOCK_SIZE, 0)) {
                const int32_t entry = look(in, ac);
                if (augd_is_whole(entry)) {
                    drop(in, augd_length_of(entry));
                    place += augd_run_of(entry) + 1;
                    break;
                }
                const Step step = take_special(in, ac, entry, NULL, &place);
                if (step != GOES_ON) return step == ENDS;
                break;
            }
            drop(in, (int)(leap & 15));
            place += passed;
            if (leap & AUGD_LEAP_ENDS) return true;
        }
    }
    return true;
}

static __attribute__((noreturn, noinline)) void broken_scan(j_decompress_ptr jpeg, const char *message) {
    const AugdEntropy *entropy = jpeg->client_data;
    entropy->on_broken(jpeg, message);
}

static void check_end(j_decompress_ptr jpeg, AugdEntropy *entropy) {
    if (!entropy->is_at_marker) fill(entropy);
    if (!entropy->is_at_marker || count_left(entropy) >= 8)
        broken_scan(jpeg, "bytes between the data and a restart marker");
}

static void begin_segment(AugdEntropy *entropy, const uint8_t *source, const uint8_t *source_end) {
    entropy->source = source;
    entropy->source_end = source_end;
    entropy->is_at_marker = false;
    entropy->next = entropy->end = entropy->data;
    entropy->bits = 0;
    entropy->num_bits = 0;
    memset(entropy->last_dc, 0, sizeof entropy->last_dc);
}

/* Find the next segment that is kept, and the marker behind it. */
static void take_segment(j_decompress_ptr jpeg, AugdEntropy *entropy) {
    enum { MARKER_BYTES = 2 };
    AugdSegments *all = &entropy->segments;
    if (all->place == all->end_place) broken_scan(jpeg, "more data than segments");
    const size_t place = all->place++, length = all->lengths[place];
    const uint8_t *source = all->next;
    if (length < MARKER_BYTES || length > (size_t)(all->end - source))
        broken_scan(jpeg, "a segment is not where the index says");
    const uint8_t *marker = source + length - MARKER_BYTES;
    const int code = place + 1 == all->num_places ? JPEG_EOI : (int)(JPEG_RST0 + (place & 7));
    if (marker[0] != 0xFF || marker[1] != code)
        broken_scan(jpeg, "a restart marker is not where the index says");
    all->next = source + length;
    if (place % (size_t)all->columns + 1 == (size_t)all->right && all->place < all->end_place) {
        const size_t next = all->place + (size_t)(all->columns - all->right + all->left);
        const size_t between = augd_segment_bytes(all->lengths, all->place, next);
        if (between > (size_t)(all->end - all->next))
            broken_scan(jpeg, "segments reach beyond what was read");
        all->next += between;
        all->place = next;
    }
    begin_segment(entropy, source, marker);
    entropy->is_left = false;
}

/* T.81, F.2.2.5: predictions begin again, after a marker with the next number. */
static void restart(j_decompress_ptr jpeg, AugdEntropy *entropy) {
    entropy->restarts_to_go = jpeg->restart_interval;
    if (!entropy->is_left) check_end(jpeg, entropy);
    if (entropy->has_segments) {
        if (!entropy->is_left && entropy->source != entropy->source_end)
            broken_scan(jpeg, "a marker inside of a segment");
        take_segment(jpeg, entropy);
        return;
    }
    const uint8_t *at = entropy->source, *end = entropy->source_end;
    while (at < end && *at == 0xFF) at++;
    if (at == end || *at != JPEG_RST0 + entropy->next_restart)
        broken_scan(jpeg, "a restart marker is missing or out of turn");
    begin_segment(entropy, at + 1, end);
    entropy->next_restart = (entropy->next_restart + 1) & 7;
}

/* Left of the wanted columns only DC values count, which predict others. In segments of known length
 * nothing right of them counts, and no segment that lies left as a whole. */
typedef enum { WANTED, PASSED, LEFT_OUT } Use;

static inline Use take_column(AugdEntropy *entropy, int num_columns) {
    const int column = entropy->column;
    entropy->column = column + 1 < num_columns ? column + 1 : 0;
    if (column >= entropy->first_column && column < entropy->end_column) return WANTED;
    if (!entropy->has_segments) return PASSED;
    const bool is_right = column >= entropy->end_column;
    const int interval = entropy->segments.interval;
    return is_right || column / interval * interval + interval <= entropy->first_column ? LEFT_OUT
                                                                                        : PASSED;
}

/* Leaps pay where many MCUs are passed. */
static bool use_leaps(AugdEntropy *entropy, int num_blocks) {
    if (entropy->num_passed < WORTH_LEAPS) {
        entropy->num_passed += num_blocks;
        return false;
    }
    for (int number = 0; number < num_blocks; number++)
        if (!entropy->blocks[number].ac->has_leaps) augd_make_leaps(entropy->blocks[number].ac);
    return true;
}

/* Decode one MCU. `rows` is NULL if its coefficients are not wanted; else they are zeros. */
static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *rows) {
    AugdEntropy *entropy = jpeg->client_data;
    if (jpeg->restart_interval) {
        if (entropy->restarts_to_go == 0) restart(jpeg, entropy);
        entropy->restarts_to_go--;
    }
    const Use use = take_column(entropy, (int)jpeg->MCUs_per_row);
    if (use == LEFT_OUT) {
        entropy->is_left = true;
        return TRUE;
    }
    if (use == PASSED) rows = NULL;
    if (!entropy->is_at_marker && entropy->end - entropy->next < AUGD_MCU_BYTES) fill(entropy);
    const bool has_leaps = !rows && use_leaps(entropy, jpeg->blocks_in_MCU);
    Bits in = {entropy->next, entropy->bits, entropy->num_bits};
    const int num_blocks = jpeg->blocks_in_MCU;
    for (int number = 0; number < num_blocks; number++) {
        const AugdBlock *block = &entropy->blocks[number];
        bool is_code = take_dc(&in, block->dc, block->last_dc);
        if (is_code && rows) {
            JCOEF *coefficients = *rows[number];
            coefficients[0] = (JCOEF)*block->last_dc;
            is_code = take_block(&in, block->ac, coefficients);
        } else if (is_code) {
            is_code = has_leaps ? leap_block(&in, block->ac) : pass_block(&in, block->ac);
        }
        if (!is_code) broken_scan(jpeg, "bad Huffman code");
    }
    entropy->next = in.next;
    entropy->bits = in.bits;
    entropy->num_bits = in.num_bits;
    if (count_left(entropy) < 0) broken_scan(jpeg, "premature end of data segment");
    return TRUE;
}

void augd_take_over(j_decompress_ptr jpeg, AugdEntropy *entropy, const AugdSegments *segments,
                    AugdOnBroken on_broken) {
    jpeg->client_data = entropy;
    entropy->on_broken = on_broken;
    const uint8_t *source = jpeg->src->next_input_byte;
    begin_segment(entropy, source, source + jpeg->src->bytes_in_buffer);
    entropy->restarts_to_go = jpeg->restart_interval;
    entropy->next_restart = 0;
    entropy->has_segments = segments != NULL;
    entropy->is_left = false;
    if (segments) {
        entropy->segments = *segments;
        take_segment(jpeg, entropy);
    }
    entropy->column = entropy->num_passed = 0;
    augd_want_columns(entropy, 0, (int)jpeg->MCUs_per_row);
    for (int number = 0; number < jpeg->blocks_in_MCU; number++) {
        int component = jpeg->MCU_membership[number];
        const jpeg_component_info *info = jpeg->cur_comp_info[component];
        /* A lossless scan, which newer versions know, has no AC table. */
        if (!jpeg->dc_huff_tbl_ptrs[info->dc_tbl_no] || !jpeg->ac_huff_tbl_ptrs[info->ac_tbl_no])
            ERREXIT1(jpeg, JERR_NO_HUFF_TABLE, info->ac_tbl_no);
        AugdTable *dc = &entropy->dc[info->dc_tbl_no], *ac = &entropy->ac[info->ac_tbl_no];
        augd_make_table(dc, jpeg->dc_huff_tbl_ptrs[info->dc_tbl_no], false);
        augd_make_table(ac, jpeg->ac_huff_tbl_ptrs[info->ac_tbl_no], true);
        entropy->blocks[number] = (AugdBlock){dc, ac, &entropy->last_dc[component]};
    }
    jpeg->entropy->decode_mcu = decode_mcu;
}

void augd_want_columns(AugdEntropy *entropy, int first, int end) {
    entropy->first_column = first;
    entropy->end_column = end;
}

#endif
