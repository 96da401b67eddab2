/* Every address of each name, both families at once, as the C library gives them; "none" when there is none. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints, *found;
		memset(&hints, 0, sizeof hints);
		hints.ai_socktype = SOCK_STREAM;
		int error = getaddrinfo(argv[i], NULL, &hints, &found);
		if (error == EAI_NONAME) {
			printf("%s none\n", argv[i]);
			continue;
		}
		if (error) {
			printf("%s error %s\n", argv[i], gai_strerror(error));
			continue;
		}
		for (struct addrinfo *a = found; a; a = a->ai_next) {
			char text[64];
			const void *address = a->ai_family == AF_INET6
				? (const void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr
				: (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr;
			printf("%s %s\n", argv[i], inet_ntop(a->ai_family, address, text, sizeof text));
		}
		freeaddrinfo(found);
	}
	return 0;
}
