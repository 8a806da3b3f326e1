#include "buffer.h"

#include <stdlib.h>

void *augd_grow_buffer(AugdBuffer *buffer, size_t size) {
    if (buffer->size < size) {
        free(buffer->memory);
        buffer->memory = malloc(size);
        buffer->size = buffer->memory ? size : 0;
    }
    return buffer->memory;
}
