// 20,000 VMAs from one line of a goroutine.
package main

import (
	"fmt"
	"syscall"
)

const page = 4096

//go:noinline
func protectEverySecond(memory []byte) {
	for at := page; at < len(memory); at += 2 * page {
		if err := syscall.Mprotect(memory[at:at+page], syscall.PROT_NONE); err != nil { // this line
			fmt.Println(err)
		}
	}
}

//go:noinline
func handleRequest(pages int, done chan<- bool) {
	memory, err := syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	protectEverySecond(memory)
	done <- true
}

func main() {
	done := make(chan bool)
	go handleRequest(20000, done)
	<-done
}
