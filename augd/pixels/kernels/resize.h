/* The parts of a resize, for callers that get the source line by line. */
#ifndef AUGD_RESIZE_H
#define AUGD_RESIZE_H

#include "kernels.h"

/* Along one axis: which taps make each output pixel. All have the same number of taps, an even one;
 * those that a pixel doesn't need weigh nothing. */
typedef struct {
    int num_outputs, num_taps;
    int *first;       /* of each output: its first tap, counted from the first of all */
    int16_t *weights; /* num_outputs x num_taps */
} AugdTaps;

typedef struct {
    bool is_bicubic, is_flipped;
    Region needed; /* of the source: what any tap touches */
    AugdTaps down, across;
    int16_t *line;
    int16_t *pairs; /* the weights across, as vectors want them: see resize.c */
} AugdScaler;

/* Prepare to scale a source of this size; the scaler is valid until the thread's next one. Returns
 * false when memory is short. */
bool augd_prepare_scaler(AugdScaler *scaler, int source_width, int source_height, Scaling scaling);

/* Make row `y` of the window, and put it where it belongs in `out`, which is all of the window. `lines`
 * points to the row's first tap and has at most `num_lines`. */
void augd_scale_row(const AugdScaler *scaler, int y, const uint8_t *lines, ptrdiff_t stride,
                    int num_lines, uint8_t *out);

#endif
