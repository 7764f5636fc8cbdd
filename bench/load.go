package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// roundLimit ends a round whose server no longer responds.
const roundLimit = 5 * time.Minute

// newRequest returns a request in wire format, with the token if it is not empty.
func newRequest(token []byte) []byte {
	request := []byte("GET /api/todos HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: caddy-jwt-bench\r\nAccept: */*\r\n")
	if len(token) > 0 {
		request = fmt.Appendf(request, "Authorization: Bearer %s\r\n", token)
	}
	return append(request, "\r\n"...)
}

// connection is an HTTP/1.1 connection. The client of net/http would use more CPU than the
// servers, with which it shares the cores.
type connection struct {
	net.Conn
	in *bufio.Reader
}

func dial(address string) (*connection, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{conn, bufio.NewReader(conn)}, conn.SetDeadline(time.Now().Add(roundLimit))
}

// send sends a request and returns the status of the response.
func (c *connection) send(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if _, code, found := bytes.Cut(line, []byte(" ")); found && len(code) >= 3 {
		status, err = strconv.Atoi(string(code[:3]))
	}
	if status == 0 || err != nil {
		return 0, fmt.Errorf("%q is no HTTP status line", line)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			break
		}
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("the answer has no Content-Length, without which its end is not found here")
	}
	_, err = c.in.Discard(length)
	return status, err
}

// load sends n requests and returns the server's CPU time per request in µs. Every response must
// be 200, because refusals cost less.
func (s *server) load(n, connections int) (float64, error) {
	conns := make([]*connection, connections)
	for i := range conns {
		var err error
		if conns[i], err = dial(s.address); err != nil {
			return 0, err
		}
		defer conns[i].Close()
	}
	before, err := cpuTime(s.process.Process.Pid)
	if err != nil {
		return 0, err
	}
	errs := make([]error, connections)
	var wg sync.WaitGroup
	for i, conn := range conns {
		wg.Go(func() {
			for at := i; at < n && errs[i] == nil; at += connections {
				var status int
				status, errs[i] = conn.send(s.requests[(s.sent+at)%len(s.requests)])
				if errs[i] == nil && status != http.StatusOK {
					errs[i] = fmt.Errorf("status %d under load; it must be 200", status)
				}
			}
		})
	}
	wg.Wait()
	s.sent += n
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	after, err := cpuTime(s.process.Process.Pid)
	return float64((after - before).Nanoseconds()) / 1e3 / float64(n), err
}
