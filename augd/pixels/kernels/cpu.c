/* Which instructions of the processor the kernels use. */
#include "kernels.h"

static bool is_avx2_used;

bool augd_use_avx2(void) { return is_avx2_used; }

bool augd_allow_avx2(bool is_allowed) {
#if AUGD_HAS_AVX2_CODE
    is_avx2_used = is_allowed && __builtin_cpu_supports("avx2");
#else
    (void)is_allowed;
#endif
    return is_avx2_used;
}
