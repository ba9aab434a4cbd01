"""20,000 VMAs from one line: every second page of a mapping is made inaccessible."""
import ctypes
import mmap

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def protect_every_second(start, pages):
    for page in range(1, pages, 2):
        libc.mprotect(start + page * PAGE, PAGE, 0)


def handle_request(pages):
    memory = mmap.mmap(-1, pages * PAGE)
    protect_every_second(ctypes.addressof(ctypes.c_char.from_buffer(memory)), pages)


handle_request(20_000)
