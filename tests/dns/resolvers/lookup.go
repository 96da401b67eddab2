// Every address of each name by Go's own resolver; "none" when there is none.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
)

func main() {
	resolver := &net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		addresses, err := resolver.LookupHost(context.Background(), name)
		var lookup *net.DNSError
		switch {
		case errors.As(err, &lookup) && lookup.IsNotFound:
			fmt.Println(name, "none")
		case err != nil:
			fmt.Println(name, "error", err)
		}
		for _, address := range addresses {
			fmt.Println(name, address)
		}
	}
}
