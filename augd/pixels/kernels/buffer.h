/* Scratch memory that a thread keeps from call to call. */
#ifndef AUGD_BUFFER_H
#define AUGD_BUFFER_H

#include <stddef.h>

/* One for each place and thread, zero at first. It grows, and lives until the process ends. */
typedef struct {
    void *memory;
    size_t size;
} AugdBuffer;

/* Return at least `size` bytes of the buffer, with any content; NULL when memory is short. */
void *augd_grow_buffer(AugdBuffer *buffer, size_t size);

#endif
