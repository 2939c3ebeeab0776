package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/centrifugal/protocol"
)

// Publishes notifications on Redis as the publisher makes them, source by source in turn, and never more than a
// window ahead of the slowest client of a source: the server has always something to do, and nobody is closed
// for being slow. Offsets begin at 0 in every partition.
type announcer struct {
	fd      int
	dialect dialect
	epoch   string
	window  int
	left    int
	turn    int     // the source that is next
	where   []int   // by source: its partition
	offsets []int64 // by partition: the next
	tallies []tally // by source: what was sent
	slowest []int   // by source: what its slowest client had heard, when last looked at
	hearers [][]*client
	out     []byte
	answers []byte
}

// How many events, and the sum of their offsets: the same on both sides if all have come.
type tally struct {
	count int
	sum   int64
}

const burst = 64 * 1024 // bytes of commands that are made at once

func newAnnouncer(task clientsTask, c *crowd, each int) (*announcer, error) {
	fd, err := socket(task.Redis)
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	sources := len(task.Partitions)
	a := &announcer{
		fd: fd, dialect: c.dialect, epoch: task.Epoch, window: task.Window, left: each * sources,
		where: task.Partitions, offsets: make([]int64, slices.Max(task.Partitions)+1), tallies: make([]tally, sources),
		slowest: make([]int, sources), hearers: make([][]*client, sources), answers: make([]byte, burst),
	}
	for _, one := range c.clients {
		a.hearers[one.source] = append(a.hearers[one.source], one)
	}
	return a, c.watch(fd, redisEvent)
}

// Sends what the window allows and Redis takes.
func (a *announcer) step() error {
	now := time.Now().UnixNano()
	for len(a.out) < burst && a.left > 0 && a.allowed(a.turn) {
		a.append(a.turn, now)
		a.turn = (a.turn + 1) % len(a.where)
		a.left--
	}
	if len(a.out) == 0 {
		return nil
	}
	n, err := syscall.Write(a.fd, a.out)
	if err == syscall.EAGAIN {
		return nil
	}
	if err != nil {
		return fmt.Errorf("Redis: %w", err)
	}
	a.out = a.out[:copy(a.out, a.out[n:])]
	return nil
}

func (a *announcer) allowed(source int) bool {
	sent := a.tallies[source].count
	if sent-a.slowest[source] < a.window {
		return true
	}
	slowest := sent
	for _, one := range a.hearers[source] {
		slowest = min(slowest, one.heard.count)
	}
	a.slowest[source] = slowest
	return sent-slowest < a.window
}

func (a *announcer) append(source int, now int64) {
	partition := a.where[source]
	offset := a.offsets[partition]
	a.offsets[partition]++
	t := &a.tallies[source]
	t.count++
	t.sum += offset
	name := sourceName(source)
	body := fmt.Appendf(nil, `{"id":"%s","type":"push","source_id":"%s","pos":"%d:%d","log":"%s","pub":"5f0cbe1d9a42:%d","ts":%d}`,
		eventID(partition, offset), name[len("repo:"):], partition, offset, a.epoch, t.count, now)
	if a.dialect.wrapped {
		publication := protocol.Publication{Data: body, Time: now / 1e6}
		body, _ = publication.MarshalCF()
	}
	a.out = append(a.out, "*3\r\n$7\r\nPUBLISH\r\n"...)
	a.out = bulk(a.out, []byte(a.dialect.channel+name))
	a.out = bulk(a.out, body)
}

func eventID(partition int, offset int64) string {
	return fmt.Sprintf("00000000-0000-7000-8%03x-%012x", partition, offset)
}

func bulk(out, text []byte) []byte {
	out = strconv.AppendInt(append(out, '$'), int64(len(text)), 10)
	out = append(append(out, "\r\n"...), text...)
	return append(out, "\r\n"...)
}

// Redis answers every PUBLISH with a number.
func (a *announcer) hear() error {
	n, err := syscall.Read(a.fd, a.answers)
	if err == syscall.EAGAIN {
		return nil
	}
	if n <= 0 {
		return errors.Join(errors.New("Redis went away"), err)
	}
	if a.answers[0] == '-' {
		return fmt.Errorf("Redis refuses: %.200q", a.answers[:n])
	}
	return nil
}
