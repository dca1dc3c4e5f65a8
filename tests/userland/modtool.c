// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * modtool tun|alg|sctp|watchdog   uses what modules provide, and prints what came of it
 * modtool cycle N FILE...         loads the modules in this order and unloads them, N times
 * modtool change FILE OFFSET BITS writes the file with these bits of one byte changed
 * The output is the same on every run: no addresses, ids or times.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static struct sockaddr_in address(const char *ip, int port)
{
	return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port),
				     .sin_addr.s_addr = inet_addr(ip) };
}

/* ---- tun: a packet from the kernel and the answer to it ---- */

static int tun(void)
{
	struct sockaddr_in to = address("10.8.0.2", 4242), from;
	struct ifreq ifr = { .ifr_name = "tun7", .ifr_flags = IFF_TUN | IFF_NO_PI };
	int fd = open("/dev/net/tun", O_RDWR), s = socket(AF_INET, SOCK_DGRAM, 0);
	uint8_t packet[256], swap[4];
	socklen_t size = sizeof(from);
	char text[16] = "";
	ssize_t n;

	if (fd < 0 || s < 0 || ioctl(fd, TUNSETIFF, &ifr))
		return fail("tun");
	from = address("10.8.0.1", 0);
	memcpy(&ifr.ifr_addr, &from, sizeof(from));
	if (ioctl(s, SIOCSIFADDR, &ifr))
		return fail("address");
	from = address("255.255.255.0", 0);
	memcpy(&ifr.ifr_netmask, &from, sizeof(from));
	if (ioctl(s, SIOCSIFNETMASK, &ifr))
		return fail("netmask");
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	if (ioctl(s, SIOCSIFFLAGS, &ifr))
		return fail("up");
	if (sendto(s, "hello", 5, 0, (void *)&to, sizeof(to)) != 5)
		return fail("send");
	do	/* others than UDP are the kernel's own chatter */
		n = read(fd, packet, sizeof(packet));
	while (n > 0 && (packet[0] != 0x45 || packet[9] != 17));
	if (n != 33 || memcmp(packet + 28, "hello", 5))
		return fail("packet");
	/* back to its sender: both addresses and ports swapped, no checksum */
	memcpy(swap, packet + 12, 4);
	memcpy(packet + 12, packet + 16, 4);
	memcpy(packet + 16, swap, 4);
	memcpy(swap, packet + 20, 2);
	memcpy(packet + 20, packet + 22, 2);
	memcpy(packet + 22, swap, 2);
	memset(packet + 26, 0, 2);
	memcpy(packet + 28, "world", 5);
	if (write(fd, packet, n) != n)
		return fail("answer");
	if (recvfrom(s, text, sizeof(text), 0, (void *)&from, &size) != 5)
		return fail("receive");
	printf("tun: %s from %s\n", text, inet_ntoa(from.sin_addr));
	return 0;
}

/* ---- alg: digests and ciphers by AF_ALG ---- */

static uint8_t plain[1024];

static void print_bytes(const char *name, const uint8_t *bytes)
{
	int i;

	printf("alg: %s ", name);
	for (i = 0; i < 8; i++)
		printf("%02x", bytes[i]);
	printf("\n");
}

static int algorithm(const char *type, const char *name, int key)
{
	struct sockaddr_alg sa = { .salg_family = AF_ALG };
	int s = socket(AF_ALG, SOCK_SEQPACKET, 0), fd;

	strcpy((char *)sa.salg_type, type);
	strcpy((char *)sa.salg_name, name);
	if (s < 0 || bind(s, (void *)&sa, sizeof(sa)) ||
	    (key && setsockopt(s, SOL_ALG, ALG_SET_KEY, plain + 7, key)))
		return -1;
	fd = accept(s, NULL, NULL);
	close(s);
	return fd;
}

static int hash(const char *name, int key)
{
	int fd = algorithm("hash", name, key);
	uint8_t digest[64] = { 0 };

	if (fd < 0 || send(fd, plain, 1000, 0) != 1000 || read(fd, digest, 64) < 4)
		return fail(name);
	print_bytes(name, digest);
	return close(fd);
}

static int run_cipher(int fd, int operation, int iv_size, const uint8_t *from, uint8_t *to)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(4) + CMSG_SPACE(4 + 16)];
	} control = { 0 };
	struct iovec data = { (void *)from, sizeof(plain) };
	struct msghdr msg = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
			      .msg_controllen = CMSG_SPACE(4) + (iv_size ? CMSG_SPACE(4 + iv_size) : 0) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
	struct af_alg_iv *iv;

	head->cmsg_level = SOL_ALG;
	head->cmsg_type = ALG_SET_OP;
	head->cmsg_len = CMSG_LEN(4);
	*(int *)CMSG_DATA(head) = operation;
	if (iv_size) {
		head = CMSG_NXTHDR(&msg, head);
		head->cmsg_level = SOL_ALG;
		head->cmsg_type = ALG_SET_IV;
		head->cmsg_len = CMSG_LEN(4 + iv_size);
		iv = (void *)CMSG_DATA(head);
		iv->ivlen = iv_size;
		memset(iv->iv, 9, iv_size);
	}
	return sendmsg(fd, &msg, 0) != sizeof(plain) || read(fd, to, sizeof(plain)) != sizeof(plain);
}

static int cipher(const char *name, int key, int iv_size)
{
	static uint8_t out[sizeof(plain)], back[sizeof(plain)];
	int fd = algorithm("skcipher", name, key);

	if (fd < 0 || run_cipher(fd, ALG_OP_ENCRYPT, iv_size, plain, out) ||
	    run_cipher(fd, ALG_OP_DECRYPT, iv_size, out, back))
		return fail(name);
	if (memcmp(plain, back, sizeof(plain)) || !memcmp(plain, out, 16)) {
		printf("alg: %s does not give back what it took\n", name);
		return 1;
	}
	print_bytes(name, out);
	return close(fd);
}

static int alg(void)
{
	unsigned int i;

	for (i = 0; i < sizeof(plain); i++)
		plain[i] = i * 7 + (i >> 8);
	return hash("md4", 0) | hash("md5", 0) | hash("rmd160", 0) | hash("wp512", 0) |
	       hash("sha384", 0) | hash("sha512", 0) | hash("sha3-256", 0) | hash("crc32c", 0) |
	       hash("hmac(sha1)", 20) | hash("cmac(aes)", 16) | cipher("cbc(aes)", 32, 16) |
	       cipher("ctr(camellia)", 16, 16) | cipher("ecb(twofish)", 16, 0) |
	       cipher("xts(serpent)", 32, 16) | cipher("cbc(des3_ede)", 24, 8) |
	       cipher("cbc(blowfish)", 16, 8) | cipher("chacha20", 32, 16);
}

/* ---- sctp, a watchdog ---- */

static int sctp(void)
{
	struct sockaddr_in here = address("127.0.0.1", 5000);
	int a = socket(AF_INET, SOCK_STREAM, 132), b = socket(AF_INET, SOCK_STREAM, 132), c;
	char text[16] = "";

	if (a < 0 || bind(a, (void *)&here, sizeof(here)) || listen(a, 1) ||
	    connect(b, (void *)&here, sizeof(here)) || (c = accept(a, NULL, NULL)) < 0 ||
	    send(b, "across", 6, 0) != 6 || recv(c, text, sizeof(text), 0) != 6)
		return fail("sctp");
	printf("sctp: %s\n", text);
	return 0;
}

static int watchdog(void)
{
	int fd = open("/dev/watchdog", O_WRONLY);

	if (fd < 0 || write(fd, "V", 1) != 1 || close(fd))	/* V: and do not bite */
		return fail("watchdog");
	printf("watchdog: opened and closed\n");
	return 0;
}

/* ---- modules themselves ---- */

/* what the kernel calls the module of this file */
static void module_name(const char *file, char name[56])
{
	const char *base = strrchr(file, '/');
	char *p;

	snprintf(name, 56, "%s", base ? base + 1 : file);
	for (p = name; *p; p++) {
		if (*p == '-')
			*p = '_';
		if (*p == '.')
			*p-- = 0;
	}
}

/* a private copy of the file in memory, NULL if it cannot be had */
static uint8_t *contents(const char *file, size_t *size)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *image;

	if (fd < 0 || fstat(fd, &st))
		return NULL;
	image = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	close(fd);
	*size = st.st_size;
	return image == MAP_FAILED ? NULL : image;
}

/* by the system call that old kernels have too */
static int load(const char *file)
{
	size_t size;
	uint8_t *image = contents(file, &size);
	int err = !image || syscall(SYS_init_module, image, size, "");

	if (image)
		munmap(image, size);
	return err;
}

static int cycle(int rounds, int files, char **file)
{
	char name[56];
	int i, round;

	for (round = 0; round < rounds; round++) {
		for (i = 0; i < files; i++) {
			if (load(file[i]))
				return fail(file[i]);
		}
		while (i--) {
			module_name(file[i], name);
			if (syscall(SYS_delete_module, name, O_NONBLOCK))
				return fail(name);
		}
	}
	printf("modtool: %d cycles\n", rounds);
	return 0;
}

/* the file with these bits of one byte changed, to the standard output */
static int change(const char *file, unsigned long offset, unsigned long bits)
{
	size_t size;
	uint8_t *image = contents(file, &size);

	if (!image || offset >= size)
		return 1;
	image[offset] ^= bits;
	return write(1, image, size) != (ssize_t)size;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "tun"))
		return tun();
	if (!strcmp(what, "alg"))
		return alg();
	if (!strcmp(what, "sctp"))
		return sctp();
	if (!strcmp(what, "watchdog"))
		return watchdog();
	if (!strcmp(what, "cycle") && argc > 3)
		return cycle(atoi(argv[2]), argc - 3, argv + 3);
	if (!strcmp(what, "change") && argc == 5)
		return change(argv[2], strtoul(argv[3], NULL, 0), strtoul(argv[4], NULL, 0));
	fprintf(stderr, "modtool: see the head of modtool.c\n");
	return 2;
}
