"""Three tests that pass; one of them is refused thousands of calls, and nobody notices."""

import ctypes
import mmap

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def test_small():
    assert len([mmap.mmap(-1, PAGE) for _ in range(25)]) == 25


def test_cache_growth():
    read, write = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
    kept = [mmap.mmap(-1, PAGE, prot=(read, write)[n % 2]) for n in range(9000)]
    assert len(kept) == 9000


def test_silent_failure():
    area = mmap.mmap(-1, 80000 * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for n in range(0, 80000, 2):
        libc.mprotect(start + n * PAGE, PAGE, 0)  # nobody looks at the answer
