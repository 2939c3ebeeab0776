package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
)

var position, stamp = []byte(`"pos":"`), []byte(`"ts":`)

// All clients, read by one loop without goroutines, so that the clients cost as little as they can.
type crowd struct {
	dialect  dialect
	clients  []*client
	poll     int
	waiting  []syscall.EpollEvent
	buffer   []byte
	now      int64
	ready    int
	received int
	times    histogram
}

// The epoll events that are not a client's.
const redisEvent, stdinEvent = -1, -2

func newCrowd(task clientsTask) (*crowd, error) {
	poll, err := syscall.EpollCreate1(0)
	if err != nil {
		return nil, err
	}
	d, known := dialects[task.Server]
	if !known {
		return nil, fmt.Errorf("server %q", task.Server)
	}
	c := &crowd{
		dialect: d, poll: poll,
		waiting: make([]syscall.EpollEvent, 512), buffer: make([]byte, 256*1024),
	}
	for i := range task.Clients {
		one, err := connect(task.Address, d, i%len(task.Partitions))
		if err != nil {
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
		c.clients = append(c.clients, one)
		if err := c.watch(one.fd, i); err != nil {
			return nil, err
		}
		if one.rest, err = c.frames(one, one.rest); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *crowd) watch(fd, number int) error {
	return syscall.EpollCtl(c.poll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{
		Events: syscall.EPOLLIN, Fd: int32(number),
	})
}

// Reads what has come, for at most so long; returns which of the other sources of events have something.
func (c *crowd) step(timeout time.Duration) (redis, stdin bool, err error) {
	n, err := syscall.EpollWait(c.poll, c.waiting, int(timeout.Milliseconds()))
	if err == syscall.EINTR {
		return false, false, nil
	}
	for _, event := range c.waiting[:max(n, 0)] {
		switch event.Fd {
		case redisEvent:
			redis = true
		case stdinEvent:
			stdin = true
		default:
			if err := c.read(c.clients[event.Fd]); err != nil {
				return false, false, fmt.Errorf("client %d: %w", event.Fd, err)
			}
		}
	}
	return redis, stdin, err
}

func (c *crowd) read(one *client) error {
	kept := copy(c.buffer, one.rest)
	n, err := syscall.Read(one.fd, c.buffer[kept:])
	if err == syscall.EAGAIN {
		return nil
	}
	if n <= 0 {
		return fmt.Errorf("the connection ended: %v", err)
	}
	c.now = time.Now().UnixNano()
	rest, err := c.frames(one, c.buffer[:kept+n])
	one.rest = append(one.rest[:0], rest...)
	return err
}

// Takes whole frames off the data and returns what is left of it.
func (c *crowd) frames(one *client, data []byte) ([]byte, error) {
	for len(data) >= 2 {
		size, head := int(data[1]), 2
		switch size {
		case 126:
			if len(data) < 4 {
				return data, nil
			}
			size, head = int(binary.BigEndian.Uint16(data[2:])), 4
		case 127:
			if len(data) < 10 {
				return data, nil
			}
			size, head = int(binary.BigEndian.Uint64(data[2:])), 10
		}
		if len(data) < head+size {
			return data, nil
		}
		payload := data[head : head+size]
		switch data[0] {
		case 0x81:
			if err := c.text(one, payload); err != nil {
				return nil, err
			}
		case 0x89:
			one.send(10, payload)
		case 0x88:
			return nil, fmt.Errorf("closed by the server: %q", payload)
		default:
			return nil, fmt.Errorf("a frame that begins with %#x", data[0])
		}
		data = data[head+size:]
	}
	return data, nil
}

// A text frame: one message of ours; one or more lines of centrifuge.
func (c *crowd) text(one *client, payload []byte) error {
	for len(payload) > 0 {
		line := payload
		if end := bytes.IndexByte(payload, '\n'); end >= 0 {
			line, payload = payload[:end], payload[end+1:]
		} else {
			payload = nil
		}
		at := bytes.Index(line, position)
		if at < 0 {
			if err := c.word(one, line); err != nil {
				return err
			}
			continue
		}
		_, rest := digits(line[at+len(position):])
		offset, _ := digits(rest[min(1, len(rest)):])
		at = bytes.Index(line, stamp)
		if at < 0 || line[0] != '{' || line[len(line)-1] != '}' {
			return fmt.Errorf("not an event: %q", line)
		}
		sent, _ := digits(line[at+len(stamp):])
		one.heard.count++
		one.heard.sum += offset
		c.received++
		c.times.add(c.now - sent)
	}
	return nil
}

// A message that is not an event.
func (c *crowd) word(one *client, line []byte) error {
	switch {
	case bytes.Contains(line, c.dialect.ready):
		if !one.ready {
			one.ready = true
			c.ready++
		}
	case string(line) == "{}": // centrifuge's ping
		one.send(1, line)
	case !bytes.Contains(line, c.dialect.plain):
		return errors.New(string(line))
	}
	return nil
}

func digits(text []byte) (int64, []byte) {
	value := int64(0)
	for i, digit := range text {
		if digit < '0' || digit > '9' {
			return value, text[i:]
		}
		value = value*10 + int64(digit-'0')
	}
	return value, nil
}
