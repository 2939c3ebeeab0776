package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// One WebSocket connection on a socket that never blocks.
type client struct {
	fd     int
	source int
	rest   []byte // the beginning of a frame, whose end has not come yet
	ready  bool   // its subscription is confirmed
	heard  tally
}

// How the two servers differ on the wire.
type dialect struct {
	path    func(source string) string
	hello   func(source string) []byte
	ready   []byte // what the confirmation of the subscription contains
	plain   []byte // what any other message contains that means no trouble
	channel string // on Redis, before the source
	wrapped bool   // what is published there is an envelope (protobuf) around the notification
}

var dialects = map[string]dialect{
	"ours": {
		path:    func(source string) string { return "/ws?source=" + source },
		hello:   func(string) []byte { return nil },
		ready:   []byte(`"kind":"subscribed"`),
		plain:   []byte(`"kind":"sync"`),
		channel: "events:",
	},
	"centrifuge": {
		path: func(string) string { return "/connection/websocket" },
		hello: func(source string) []byte {
			return []byte(`{"id":1,"connect":{}}` + "\n" + `{"id":2,"subscribe":{"channel":"` + source + `"}}`)
		},
		ready:   []byte(`"subscribe":`),
		plain:   []byte(`"connect":`),
		channel: "centrifuge.client.",
		wrapped: true,
	},
}

func sourceName(number int) string { return fmt.Sprint("repo:bench/", number) }

func socket(address string) (int, error) {
	where, err := net.ResolveTCPAddr("tcp4", address)
	if err != nil {
		return 0, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	return fd, syscall.Connect(fd, &syscall.SockaddrInet4{Port: where.Port, Addr: [4]byte(where.IP.To4())})
}

func connect(address string, d dialect, source int) (*client, error) {
	fd, err := socket(address)
	if err != nil {
		return nil, err
	}
	name := sourceName(source)
	request := "GET " + d.path(name) + " HTTP/1.1\r\nHost: " + address + "\r\nUpgrade: websocket\r\n" +
		"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	if _, err = syscall.Write(fd, []byte(request)); err != nil {
		return nil, err
	}
	var answer []byte
	for !bytes.Contains(answer, []byte("\r\n\r\n")) {
		part := make([]byte, 4096)
		n, err := syscall.Read(fd, part)
		if n <= 0 {
			return nil, fmt.Errorf("no answer to the upgrade: %v", err)
		}
		answer = append(answer, part[:n]...)
	}
	head, rest, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101")) {
		return nil, errors.New("the upgrade was refused: " + strings.SplitN(string(answer), "\r\n", 2)[0])
	}
	c := &client{fd: fd, source: source, rest: rest}
	if hello := d.hello(name); hello != nil {
		c.send(1, hello)
	}
	return c, syscall.SetNonblock(fd, true)
}

// Small frames only; masked, as a client's must be, with zeros, which leave the payload as it is.
func (c *client) send(opcode byte, payload []byte) {
	frame := append([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
	syscall.Write(c.fd, frame)
}
