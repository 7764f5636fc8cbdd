package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/caddy-jwt/caddy-jwt/apikeys"
	"github.com/caddy-jwt/caddy-jwt/internal/clock"
)

const (
	keysAtOnce   = 1000     // in a transaction
	maxBatchLine = 64 << 10 // bytes
)

// addKeyBatch makes the keys of a file, if all lines are valid.
func (o *operator) addKeyBatch(keys apikeys.Keys) error {
	var from io.Reader = o.cmd.InOrStdin()
	if name := o.flags.String("batch"); name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("--batch: %w", err)
		}
		defer file.Close()
		from = file
	}
	out := bufio.NewWriter(o.cmd.OutOrStdout())
	batch := keyBatch{operator: o, keys: keys, out: json.NewEncoder(out), subjects: make(map[string]apikeys.Key)}
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxBatchLine)
	number := 0
	var err error
	for err == nil && lines.Scan() {
		number++
		if text := bytes.TrimSpace(bytes.TrimPrefix(lines.Bytes(), []byte("\ufeff"))); len(text) > 0 {
			err = batch.add(text)
		}
		if err != nil {
			err = fmt.Errorf("line %d: %w", number, err)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		err = fmt.Errorf("line %d is longer than %d bytes; write one JSON object a line", number+1, maxBatchLine)
	} else if err == nil {
		err = lines.Err()
	}
	for err == nil && len(batch.pending) > 0 {
		err = batch.make()
	}
	return errors.Join(err, out.Flush())
}

type keyBatch struct {
	*operator
	keys     apikeys.Keys
	out      *json.Encoder
	subjects map[string]apikeys.Key // whose keys were made
	pending  []*apikeys.Key
}

func (b *keyBatch) add(line []byte) error {
	var in keyInput
	if err := parseJSONLine(line, &in, "", keyMembers); err != nil {
		return err
	}
	if in.Subject == "" {
		return errors.New(`it needs a subject, as in {"subject":"billing"}`)
	}
	key, err := in.key(clock.Now())
	if err != nil {
		return err
	}
	of, known := b.subjects[in.Subject]
	if !known {
		if err := of.SetSubject(b.ctx, b.store, in.Subject); err != nil {
			return err
		}
		b.subjects[in.Subject] = of
	}
	key.Owner, key.Subject = of.Owner, of.Subject
	b.pending = append(b.pending, key)
	return key.Check(clock.Now())
}

// make makes and prints the next of the pending keys.
func (b *keyBatch) make() error {
	made := b.pending[:min(keysAtOnce, len(b.pending))]
	b.pending = b.pending[len(made):]
	texts, err := b.keys.Make(b.ctx, made...)
	if err != nil {
		return err
	}
	for i, key := range made {
		if err := b.out.Encode(key.View(texts[i])); err != nil {
			return err
		}
	}
	return nil
}
