#include <stdio.h>

int main(void)
{
    fputs("usage: fedcot COMMAND\n", stderr);
    return 2;
}
