package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

type centrifugeTask struct {
	Redis      string  `json:"redis"`       // host:port
	WriteDelay float64 `json:"write_delay"` // ms
	MaxInFrame int     `json:"max_in_frame"`
}

// A node with its Redis broker, everything else as it comes; anybody may subscribe to anything.
// Prints its address when it serves.
func runCentrifuge(text []byte) (any, error) {
	var task centrifugeTask
	if err := json.Unmarshal(text, &task); err != nil {
		return nil, err
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, err
	}
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: task.Redis})
	if err != nil {
		return nil, err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return nil, err
	}
	node.SetBroker(broker)
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{
			Credentials:        &centrifuge.Credentials{},
			WriteDelay:         time.Duration(task.WriteDelay * float64(time.Millisecond)),
			MaxMessagesInFrame: task.MaxInFrame,
		}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	fmt.Println(listener.Addr())
	return nil, http.Serve(listener, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
}
