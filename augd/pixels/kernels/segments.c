/* A rectangle of a JPEG's restart segments, copied together, their markers numbered anew.
 *
 * The lengths come from an untrusted index, and the bytes may not fit them: nothing is read or written
 * before it is checked to be there. See augd/pixels/jpeg_segments.py, which does the same without kernels.
 */
#include "kernels.h"

#include <string.h>

enum { MARKER_BYTES = 2, RST0 = 0xD0, EOI = 0xD9 };

size_t augd_segment_bytes(const uint16_t *lengths, size_t first, size_t end) {
    size_t sum = 0;
    for (size_t number = first; number < end; number++) sum += lengths[number];
    return sum;
}

bool augd_cut_segments(Segments all, Region kept, const uint8_t *body, size_t body_size, uint8_t *out,
                       size_t out_size) {
    const uint8_t *at = body, *body_end = body + body_size;
    uint8_t *to = out;
    unsigned number = 0;
    for (int row = kept.y; row < kept.y + kept.height; row++) {
        for (int column = kept.x; column < kept.x + kept.width; column++, number++) {
            const size_t place = (size_t)row * (size_t)all.columns + (size_t)column;
            const size_t length = all.lengths[place];
            const bool is_last = row == all.rows - 1 && column == all.columns - 1;
            if (length < MARKER_BYTES || length > (size_t)(body_end - at) ||
                length > out_size - (size_t)(to - out) || at[length - 2] != 0xFF ||
                at[length - 1] != (is_last ? EOI : RST0 + (place & 7)))
                return false;
            memcpy(to, at, length);
            at += length;
            to += length;
            to[-1] = (uint8_t)(RST0 + (number & 7));
        }
        if (row == kept.y + kept.height - 1) break;
        const size_t next = (size_t)row * (size_t)all.columns + (size_t)(kept.x + kept.width);
        const size_t between =
            augd_segment_bytes(all.lengths, next, next + (size_t)(all.columns - kept.width));
        if (between > (size_t)(body_end - at)) return false;
        at += between;
    }
    if (at != body_end || (size_t)(to - out) != out_size) return false;
    to[-1] = EOI;
    return true;
}
