/* 20,000 VMAs from one line: every second page of a mapping is made inaccessible. */
#include <stdio.h>
#include <sys/mman.h>

#define PAGE 4096

static __attribute__((noinline)) void protect_every_second(char *start, int pages)
{
    for (int page = 1; page < pages; page += 2)
        if (mprotect(start + (long)page * PAGE, PAGE, PROT_NONE))
            perror("mprotect");
    __asm__ volatile("" ::: "memory"); /* it comes back here */
}

static __attribute__((noinline)) int handle_request(int pages)
{
    char *start = mmap(0, (long)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        return 1;
    protect_every_second(start, pages);
    __asm__ volatile("" ::: "memory");
    return 0;
}

int main(void)
{
    int status = handle_request(20000);
    __asm__ volatile("" ::: "memory");
    return status;
}
