// The work of tests/support/client_work.py by grpc-go.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	infer       = "/inference.GRPCInferenceService/ModelInfer"
	streamInfer = "/inference.GRPCInferenceService/ModelStreamInfer"
	kinds       = 16
)

// asIs is a codec that leaves bytes as they are.
type asIs struct{}

func (asIs) Marshal(value interface{}) ([]byte, error) { return value.([]byte), nil }
func (asIs) Unmarshal(data []byte, value interface{}) error {
	*value.(*[]byte) = data
	return nil
}
func (asIs) Name() string { return "proto" }

type client struct {
	*grpc.ClientConn
	folder string
}

func (c *client) read(name string) []byte {
	content, err := os.ReadFile(filepath.Join(c.folder, name))
	must(err)
	return content
}

func (c *client) ask(ctx context.Context, name string, options ...grpc.CallOption) error {
	var answer []byte
	if err := c.Invoke(ctx, infer, c.read(name+".ask"), &answer, options...); err != nil {
		return err
	}
	c.same(name, "answer", answer)
	return nil
}

func (c *client) same(name, kind string, answer []byte) {
	if !bytes.Equal(answer, c.read(name+"."+kind)) {
		log.Fatalf("this is not the answer to %s", name)
	}
}

func (c *client) stream(ctx context.Context, messages int) {
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := c.NewStream(ctx, description, streamInfer)
	must(err)
	go func() {
		for number := 0; number < messages; number++ {
			if stream.SendMsg(c.read(kind(number)+".ask")) == io.EOF {
				return // the stream is over; who reads is told why
			}
		}
		must(stream.CloseSend())
	}()
	for number := 0; number < messages; number++ {
		var answer []byte
		must(stream.RecvMsg(&answer))
		c.same(kind(number), "told", answer)
	}
	var more []byte
	if err := stream.RecvMsg(&more); err != io.EOF {
		log.Fatalf("after the last answer came %v", err)
	}
}

func kind(number int) string { return strconv.Itoa(number % kinds) }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	calls, err := strconv.Atoi(os.Args[3])
	must(err)
	messages, err := strconv.Atoi(os.Args[4])
	must(err)
	sizes := grpc.WithDefaultCallOptions(grpc.ForceCodec(asIs{}), grpc.MaxCallRecvMsgSize(math.MaxInt32))
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), sizes)
	must(err)
	c := &client{connection, os.Args[2]}
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+string(c.read("token")))

	var all sync.WaitGroup
	for number := 0; number < calls; number++ {
		all.Add(1)
		go func(name string) {
			defer all.Done()
			must(c.ask(ctx, name))
		}(kind(number))
	}
	all.Wait()
	fmt.Println("unary 0")

	c.stream(ctx, messages)
	fmt.Println("stream 0")

	hasty, stop := context.WithTimeout(ctx, 1000*time.Millisecond)
	fmt.Println("deadline", int(status.Code(c.ask(hasty, "slow"))))
	stop()

	leaving, leave := context.WithCancel(ctx)
	ended := make(chan error)
	go func() { ended <- c.ask(leaving, "slow") }()
	time.AfterFunc(100*time.Millisecond, func() {
		must(c.ask(ctx, "0"))
		leave()
	})
	fmt.Println("cancel", int(status.Code(<-ended)))

	unknown := status.Convert(c.ask(ctx, "unknown"))
	fmt.Println("unknown", int(unknown.Code()), unknown.Message())
	must(c.ask(ctx, "large"))
	fmt.Println("large 0")
	for number := 0; number < kinds; number++ {
		must(c.ask(ctx, kind(number), grpc.UseCompressor(gzip.Name)))
	}
	fmt.Println("gzip 0")
	every := make([]byte, 256)
	for number := range every {
		every[number] = byte(number)
	}
	must(c.ask(metadata.AppendToOutgoingContext(ctx, "x-plain", "plain", "x-every-byte-bin", string(every)), "0"))
	fmt.Println("metadata 0")
	refused := status.Convert(c.ask(context.Background(), "0"))
	fmt.Println("refused", int(refused.Code()), refused.Message())
	must(connection.Close())
}
