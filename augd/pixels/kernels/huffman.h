/* Huffman decoding of sequential JPEG scans, in the place of libjpeg's own.
 *
 * Only the step from bytes to coefficients is replaced (ITU T.81, F.2.2): it takes most of the time
 * of an image. libjpeg-turbo still handles headers, tables, IDCT, upsampling and colours.
 */
#ifndef AUGD_HUFFMAN_H
#define AUGD_HUFFMAN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define JPEG_INTERNALS
#include <jpeglib.h>

#include "huffman_table.h"

enum {
    AUGD_MCU_BYTES = 4096, /* more than any MCU takes: 10 blocks of 64 symbols of 31 bits */
    AUGD_DATA_BYTES = 16384,
};

typedef struct {
    const AugdTable *dc;
    AugdTable *ac;
    int *last_dc;
} AugdBlock;

/* Segments that are decoded where they lie, with others beside them that are skipped. */
typedef struct {
    const uint8_t *next, *end; /* the bytes that hold them: those behind the last one read */
    const uint16_t *lengths;   /* of the image's segments, each with the marker behind it */
    int columns, interval;     /* segments in a row of the image, MCUs in a segment */
    int left, right;           /* columns of segments that are kept, the second one exclusive */
    size_t place, end_place;   /* number of the next segment, and behind the last one that is kept */
    size_t num_places;         /* of the image */
} AugdSegments;

/* What to call on broken data; it doesn't return. `message` says what is wrong. */
typedef __attribute__((noreturn)) void (*AugdOnBroken)(j_decompress_ptr jpeg, const char *message);

typedef struct {
    AugdOnBroken on_broken;
    const uint8_t *source, *source_end; /* the bytes behind `data`, as in the file */
    bool is_at_marker;                  /* and begins with a marker, or there is none */
    bool has_segments, is_left;         /* the rest of the present segment is skipped */
    AugdSegments segments;
    const uint8_t *next, *end;          /* in `data` */
    uint8_t *zeros, *zeros_end;         /* in `data`: nothing but zeros between them */
    uint64_t bits;                      /* taken from there, left-aligned */
    int num_bits;
    unsigned restarts_to_go;
    int next_restart;
    int column, first_column, end_column; /* MCUs; coefficients are wanted of those between */
    int num_passed; /* blocks */
    int last_dc[MAX_COMPS_IN_SCAN];
    AugdBlock blocks[D_MAX_BLOCKS_IN_MCU];
    AugdTable dc[NUM_HUFF_TBLS], ac[NUM_HUFF_TBLS];
    uint8_t data[AUGD_DATA_BYTES + AUGD_MCU_BYTES];
} AugdEntropy;

/* Take over the scan that `jpeg` has started. `jpeg->client_data` must be free for `entropy`. With
 * `segments` the data is theirs; each segment is checked when it is taken. */
void augd_take_over(j_decompress_ptr jpeg, AugdEntropy *entropy, const AugdSegments *segments,
                    AugdOnBroken on_broken);

/* Leave out the coefficients left and right of these columns of MCUs. */
void augd_want_columns(AugdEntropy *entropy, int first, int end);

#endif
