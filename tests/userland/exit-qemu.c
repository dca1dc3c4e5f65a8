// SPDX-License-Identifier: MIT OR Apache-2.0
/* exit-qemu N: write N to the isa-debug-exit port; QEMU ends with 2 * N + 1 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned char byte = argc > 1 ? (unsigned char)strtoul(argv[1], NULL, 0) : 0;
	int fd = open("/dev/port", O_WRONLY);

	sync();
	if (fd < 0 || pwrite(fd, &byte, 1, 0xf4) != 1)
		return 1;
	sleep(1);
	return 1;	/* still here: no such device */
}
