// For benchmarks/fanout.py: WebSocket clients that parse every frame, the same for both servers; the peer,
// a centrifuge server; and clients of GET /events. Each takes its task as JSON and prints its result as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]byte) (any, error){
		"clients": runClients, "centrifuge": runCentrifuge, "requests": runRequests,
	}
	if len(os.Args) != 3 || commands[os.Args[1]] == nil {
		fail("usage: fanout clients|centrifuge|requests TASK")
	}
	result, err := commands[os.Args[1]]([]byte(os.Args[2]))
	if err != nil {
		fail(err)
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

func fail(what any) {
	fmt.Fprintln(os.Stderr, what)
	os.Exit(3)
}
