/*
 * fault - says whose buffer it was when a guard stops the program.
 *
 * The handler for SIGSEGV looks for the guarded buffer that has the address,
 * and writes a line about it. The line is made without any call that a signal
 * handler may not make. A second line, with where the buffer was checked out
 * and released, asks the dynamic linker for the name of a function, which takes
 * the linker's lock; so it comes last. Then the handler that was there before
 * is called, or the default is put back, and the instruction stops the program
 * once more.
 */
#ifndef BUFPOOL_FAULT_H
#define BUFPOOL_FAULT_H

/* Installs the handler, once in a process, and again where the program has put
 * back the default. Where it installs one of its own later, and does not call
 * this one, nothing is reported. */
void bp_fault_begin(void);

#endif
