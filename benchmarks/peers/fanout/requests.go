package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

type requestsTask struct {
	URL         string  `json:"url"` // without the number of the source, which is appended
	Sources     int     `json:"sources"`
	Connections int     `json:"connections"`
	Seconds     float64 `json:"seconds"`
}

type requestsResult struct {
	Requests int     `json:"requests"`
	Events   int     `json:"events"`
	Seconds  float64 `json:"seconds"`
	P50      float64 `json:"p50"`
	P99      float64 `json:"p99"`
}

// Each connection asks again as soon as it has read its answer.
func runRequests(text []byte) (any, error) {
	var task requestsTask
	if err := json.Unmarshal(text, &task); err != nil {
		return nil, err
	}
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = task.Connections
	var result requestsResult
	var times histogram
	var failure error
	var lock sync.Mutex
	var wait sync.WaitGroup
	started := time.Now()
	end := started.Add(time.Duration(task.Seconds * float64(time.Second)))
	for c := range task.Connections {
		wait.Go(func() {
			for n := c; time.Now().Before(end); n += task.Connections {
				begun := time.Now()
				events, err := recent(fmt.Sprint(task.URL, n%task.Sources))
				took := time.Since(begun)
				lock.Lock()
				if err != nil {
					failure = err
					lock.Unlock()
					return
				}
				result.Requests++
				result.Events += events
				times.add(took.Nanoseconds())
				lock.Unlock()
			}
		})
	}
	wait.Wait()
	result.Seconds = time.Since(started).Seconds()
	result.P50, result.P99 = times.quantile(0.5), times.quantile(0.99)
	return result, failure
}

func recent(url string) (int, error) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	if response.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", response.Status, body)
	}
	return bytes.Count(body, []byte(`"source_id":`)), nil
}
