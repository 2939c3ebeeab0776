package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type clientsTask struct {
	Address    string `json:"address"`
	Server     string `json:"server"` // ours or centrifuge
	PID        int    `json:"pid"`    // the server's
	Clients    int    `json:"clients"`
	Partitions []int  `json:"partitions"` // of each source; client i hears source i modulo their number
	Redis      string `json:"redis"`
	Window     int    `json:"window"` // messages
	Epoch      string `json:"epoch"`  // of the log whose positions are announced
}

// What stdin says, in one line, once all are subscribed.
type order struct {
	Each     int  `json:"each"`     // events of every source
	Announce bool `json:"announce"` // by us; else somebody else publishes them
	Progress bool `json:"progress"` // print how many of a source all its clients have heard
}

type clientsResult struct {
	Deliveries int     `json:"deliveries"`
	Expected   int     `json:"expected"`
	Complete   int     `json:"complete"` // clients that heard exactly what was announced
	Sums       []int64 `json:"sums"`     // by client: of the offsets that it heard
	Rate       float64 `json:"rate"`     // deliveries/s; this and what follows: of the last four fifths
	P50        float64 `json:"p50"`      // ms from ts
	P99        float64 `json:"p99"`
	Max        float64 `json:"max"`
	ServerBusy float64 `json:"server_busy"` // share of one core
	ClientBusy float64 `json:"client_busy"`
}

const patience = 10 * time.Second // without a delivery

func runClients(text []byte) (any, error) {
	var task clientsTask
	if err := json.Unmarshal(text, &task); err != nil {
		return nil, err
	}
	crowd, err := newCrowd(task)
	if err != nil {
		return nil, err
	}
	for last := time.Now(); crowd.ready < task.Clients; {
		before := crowd.ready
		if _, _, err := crowd.step(time.Second); err != nil {
			return nil, err
		}
		if crowd.ready > before {
			last = time.Now()
		} else if time.Since(last) > patience {
			return nil, fmt.Errorf("%d of %d clients are subscribed", crowd.ready, task.Clients)
		}
	}
	fmt.Println("ready")
	order, err := awaitOrder(crowd)
	if err != nil {
		return nil, err
	}
	return hear(task, crowd, order)
}

// Reads on meanwhile.
func awaitOrder(c *crowd) (order, error) {
	var said order
	if err := c.watch(0, stdinEvent); err != nil {
		return said, err
	}
	line := make([]byte, 4096)
	for {
		_, stdin, err := c.step(time.Second)
		if err != nil {
			return said, err
		}
		if stdin {
			n, _ := syscall.Read(0, line)
			if n <= 0 {
				return said, errors.New("nobody said what to do")
			}
			err := syscall.EpollCtl(c.poll, syscall.EPOLL_CTL_DEL, 0, nil)
			return said, errors.Join(err, json.Unmarshal(line[:n], &said))
		}
	}
}

// Until every client has heard all of its source, or no more comes.
func hear(task clientsTask, c *crowd, order order) (*clientsResult, error) {
	expected := order.Each * len(c.clients)
	announced := order.Each
	if !order.Announce {
		announced = 0
	}
	a, err := newAnnouncer(task, c, announced)
	if err != nil {
		return nil, err
	}
	var warm moment
	said := time.Now()
	for last := time.Now(); c.received < expected && time.Since(last) < patience; {
		before := c.received
		if err := turn(c, a); err != nil {
			return nil, err
		}
		if c.received > before {
			last = time.Now()
		}
		if warm.when.IsZero() && c.received >= expected/5 {
			warm = now(task.PID, c.received)
			c.times = histogram{}
		}
		if order.Progress && time.Since(said) > 50*time.Millisecond {
			said = time.Now()
			fmt.Println(slices.Min(a.slowest))
		}
	}
	end := now(task.PID, c.received)
	// What comes now is too much.
	for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
		if err := turn(c, a); err != nil {
			return nil, err
		}
	}
	result := clientsResult{Deliveries: c.received, Expected: expected}
	for _, one := range c.clients {
		result.Sums = append(result.Sums, one.heard.sum)
		if one.heard == a.tallies[one.source] {
			result.Complete++
		}
	}
	seconds := end.when.Sub(warm.when).Seconds()
	result.Rate = float64(end.received-warm.received) / seconds
	result.ServerBusy, result.ClientBusy = (end.server-warm.server)/seconds, (end.client-warm.client)/seconds
	result.P50, result.P99 = c.times.quantile(0.5), c.times.quantile(0.99)
	result.Max = float64(c.times.max) / 1e6
	return &result, nil
}

func turn(c *crowd, a *announcer) error {
	if err := a.step(); err != nil {
		return err
	}
	redis, _, err := c.step(10 * time.Millisecond)
	if err == nil && redis {
		err = a.hear()
	}
	return err
}

type moment struct {
	when           time.Time
	received       int
	server, client float64 // CPU seconds so far
}

func now(pid, received int) moment {
	return moment{time.Now(), received, cpu(pid), cpu(os.Getpid())}
}

// CPU seconds of a process so far, from /proc.
func cpu(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprint("/proc/", pid, "/stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // ticks of Linux
}
