#ifndef BUFPOOL_NAMES_H
#define BUFPOOL_NAMES_H
#endif
