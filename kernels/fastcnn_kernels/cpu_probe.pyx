"""Ask the CPU and the operating system which x86-64 level they support (never compiled above baseline)."""

cdef extern from *:
    """
    #if defined(__GNUC__) && (defined(__x86_64__) || defined(_M_X64))
    #define HAS(feature) (__builtin_cpu_supports(feature) != 0)
    static int fastcnn_x86_level(void) {
        __builtin_cpu_init();
        if (!(HAS("avx2") && HAS("fma") && HAS("bmi") && HAS("bmi2"))) return 1;
        if (!(HAS("avx512f") && HAS("avx512bw") && HAS("avx512cd") && HAS("avx512dq") && HAS("avx512vl"))) return 3;
        return 4;
    }
    #else
    static int fastcnn_x86_level(void) { return 0; }
    #endif
    """
    int fastcnn_x86_level() nogil


def x86_level():
    """Return 4, 3 or 1 for x86-64-v4, -v3 and older, and 0 on other machines or compilers."""
    return fastcnn_x86_level()
