// The pattern in Go: kafka-go's Writer, then a go-redis pipeline of PUBLISH for every acknowledged batch.
// kafka-go has no idempotent producer; the rest is as the other peers have it.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/segmentio/kafka-go"
)

type task struct {
	Kafka    string  `json:"kafka"`
	Redis    *string `json:"redis"`
	Topic    string  `json:"topic"`
	Batch    int     `json:"batch"`
	InFlight int     `json:"in_flight"`
	Size     int     `json:"size"`
	Events   int     `json:"events"`
	Sources  int     `json:"sources"`
	Hot      bool    `json:"hot"`
	Tuned    bool    `json:"tuned"`
}

type event struct {
	id, kind, sourceType, sourceID string
	occurredAt                     time.Time
	data                           []byte
}

// Names here need no escaping, so the JSON is appended by hand: as fast as Go gets.
func (e *event) encode() []byte {
	b := make([]byte, 0, len(e.data)+220)
	b = append(b, `{"id":"`...)
	b = append(b, e.id...)
	b = append(b, `","type":"`...)
	b = append(b, e.kind...)
	b = append(b, `","source_type":"`...)
	b = append(b, e.sourceType...)
	b = append(b, `","source_id":"`...)
	b = append(b, e.sourceID...)
	b = append(b, `","occurred_at":"`...)
	b = e.occurredAt.AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","data":`...)
	b = append(b, e.data...)
	return append(b, '}')
}

func (e *event) message() kafka.Message {
	return kafka.Message{
		Key:   []byte(e.sourceID),
		Value: e.encode(),
		Headers: []kafka.Header{
			{Key: "ce_specversion", Value: []byte("1.0")},
			{Key: "ce_id", Value: []byte(e.id)},
			{Key: "ce_type", Value: []byte(e.kind)},
			{Key: "ce_source", Value: []byte("/" + e.sourceType + "/" + e.sourceID)},
			{Key: "ce_time", Value: e.occurredAt.AppendFormat(nil, "2006-01-02T15:04:05.000000Z")},
			{Key: "content-type", Value: []byte("application/json")},
		},
		WriterData: e,
	}
}

func makeEvents(t task) []event {
	size := t.Size - 172
	if size < 1 {
		size = 1
	}
	data := []byte(`"` + strings.Repeat("x", size) + `"`)
	events := make([]event, t.Events)
	for i := range events {
		source := (i * 7) % t.Sources
		if t.Hot && i%10 != 0 {
			source = 0
		}
		raw := make([]byte, 16)
		rand.Read(raw)
		h := hex.EncodeToString(raw)
		id := h[:8] + "-" + h[8:12] + "-7" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
		events[i] = event{id, "push.created", "repo", "owner/repo-" + strconv.Itoa(source), time.Now().UTC(), data}
	}
	return events
}

// One worker a partition keeps a source's notifications in order.
type notifier struct {
	client   *redis.Client
	lanes    []chan []kafka.Message
	notified atomic.Int64
	dropped  atomic.Int64
	wait     sync.WaitGroup
}

func (n *notifier) run(lane chan []kafka.Message) {
	defer n.wait.Done()
	counts := map[string]int{}
	ctx := context.Background()
	for messages := range lane {
		now := strconv.FormatInt(time.Now().UnixNano(), 10)
		pipe := n.client.Pipeline()
		for i := range messages {
			m := &messages[i]
			e := m.WriterData.(*event)
			counts[e.sourceID]++
			body := `{"id":"` + e.id + `","type":"` + e.kind + `","source_id":"` + e.sourceID + `","pos":"` +
				strconv.Itoa(m.Partition) + ":" + strconv.FormatInt(m.Offset, 10) + `","log":"0123456789ab","pub":"0123456789abcd:` +
				strconv.Itoa(counts[e.sourceID]) + `","ts":` + now + `}`
			pipe.Publish(ctx, "events:"+e.sourceType+":"+e.sourceID, body)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			n.dropped.Add(int64(len(messages)))
		} else {
			n.notified.Add(int64(len(messages)))
		}
	}
}

// Seconds of all threads so far.
func cpu() float64 {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	var t task
	if err := json.Unmarshal([]byte(os.Args[1]), &t); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	events := makeEvents(t)
	var acked atomic.Int64
	var n *notifier
	if t.Redis != nil {
		address, _ := url.Parse(*t.Redis)
		n = &notifier{client: redis.NewClient(&redis.Options{Addr: address.Host, Protocol: 2})}
		for p := 0; p < 6; p++ {
			lane := make(chan []kafka.Message, 64)
			n.lanes = append(n.lanes, lane)
			n.wait.Add(1)
			go n.run(lane)
		}
	}
	writer := &kafka.Writer{
		Addr:         kafka.TCP(t.Kafka),
		Topic:        t.Topic,
		Balancer:     &kafka.Murmur2Balancer{},
		RequiredAcks: kafka.RequireAll,
		Completion: func(messages []kafka.Message, err error) {
			if err != nil {
				return
			}
			acked.Add(int64(len(messages)))
			if n != nil {
				n.lanes[messages[0].Partition] <- messages
			}
		},
	}
	if t.Tuned {
		writer.BatchTimeout = 2 * time.Millisecond
		writer.BatchSize = 2000
		writer.BatchBytes = 1000000
	}
	ctx := context.Background()
	// The first write fetches metadata and connects; as the other peers do at their start.
	warm := event{"00000000-0000-7000-8000-000000000000", "warm", "repo", "owner/warm", time.Now().UTC(), []byte("1")}
	if err := writer.WriteMessages(ctx, warm.message()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}

	var next atomic.Int64
	step := t.Batch
	if step == 0 {
		step = 1
	}
	var wait sync.WaitGroup
	started, spent := time.Now(), cpu()
	for c := 0; c < t.InFlight; c++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for {
				end := int(next.Add(int64(step)))
				first := end - step
				if first >= len(events) {
					return
				}
				if end > len(events) {
					end = len(events)
				}
				messages := make([]kafka.Message, 0, end-first)
				for i := first; i < end; i++ {
					messages = append(messages, events[i].message())
				}
				if err := writer.WriteMessages(ctx, messages...); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}()
	}
	wait.Wait()
	// A completion may come after its WriteMessages returned: closing waits for the last of them.
	writer.Close()
	result := map[string]any{"notified": 0, "dropped": 0}
	if n != nil {
		for _, lane := range n.lanes {
			close(lane)
		}
		n.wait.Wait()
		result["notified"] = n.notified.Load() - 1
		result["dropped"] = n.dropped.Load()
	}
	result["seconds"] = time.Since(started).Seconds()
	result["acked"] = acked.Load() - 1
	result["cpu"] = cpu() - spent
	json.NewEncoder(os.Stdout).Encode(result)
}
