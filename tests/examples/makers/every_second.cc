// 20,000 VMAs from one line of a lambda, through templates and a thread.
#include <cstdio>
#include <sys/mman.h>
#include <thread>
#include <vector>

constexpr long page = 4096;

namespace pool {
template <typename Do> [[gnu::noinline]] void for_every_second(long pages, Do &&action)
{
    for (long at = 1; at < pages; at += 2)
        action(at);
    asm volatile("" ::: "memory");
}

template <typename Item> class Arena {
  public:
    explicit Arena(long pages) : pages_(pages)
    {
        start_ = static_cast<char *>(
            mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    }

    [[gnu::noinline]] void guard()
    {
        for_every_second(pages_, [this](long at) {
            if (mprotect(start_ + at * page, page, PROT_NONE)) // this line
                std::perror("mprotect");
        });
        asm volatile("" ::: "memory");
    }

  private:
    char *start_;
    long pages_;
};
} // namespace pool

int main()
{
    std::thread worker([] { pool::Arena<std::vector<int>>(20000).guard(); });
    worker.join();
}
