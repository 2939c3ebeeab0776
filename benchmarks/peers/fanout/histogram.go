package main

import "math/bits"

// Latencies in ns, to about 3 %: 32 buckets for every power of two.
type histogram struct {
	counts [64 * 32]int64
	total  int64
	max    int64
}

func (h *histogram) add(value int64) {
	value = max(value, 0) // one machine, one clock: below 0 only by its resolution
	h.counts[bucket(value)]++
	h.total++
	h.max = max(h.max, value)
}

func bucket(value int64) int {
	if value < 32 {
		return int(value)
	}
	shift := bits.Len64(uint64(value)) - 6
	return (shift+1)*32 + int(value>>shift) - 32
}

// The upper end of the bucket that holds the quantile, in ms.
func (h *histogram) quantile(q float64) float64 {
	left := int64(q*float64(h.total)) + 1
	for i, count := range h.counts {
		if left -= count; left <= 0 {
			top := int64(i + 1)
			if i >= 32 {
				top = int64(i%32+33) << (i/32 - 1)
			}
			return float64(min(top, h.max)) / 1e6
		}
	}
	return float64(h.max) / 1e6
}
