package source

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/compress/zstd"
)

// A file of a kept answer is
//
//	ema answer 1 CRC-32C-OF-ALL-THAT-FOLLOWS
//	{"asked": …}
//	body
//
// in which the body may be compressed. Neither tokens nor signed links are in it: what has any is not
// kept.
const keptFormat = "ema answer 1 "

type keptHead struct {
	Asked string `json:"asked"`
	At    string `json:"at,omitempty"` // empty = Asked
	ETag  string `json:"etag,omitempty"`
	Link  string `json:"link,omitempty"`
	Zstd  bool   `json:"zstd,omitempty"`
	Size  int    `json:"size"` // of the body, not compressed
}

// encodeKept is the file of k.
func encodeKept(k *kept, compress bool) []byte {
	head := keptHead{Asked: k.asked, At: k.at, ETag: k.etag, Link: k.link, Size: len(k.body)}
	if head.At == head.Asked {
		head.At = ""
	}
	body := k.body
	if compress {
		if enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault)); err == nil {
			head.Zstd, body = true, enc.EncodeAll(body, nil)
		}
	}
	line, err := json.Marshal(head)
	if err != nil { // texts and numbers always have a form; an empty file is a miss
		return nil
	}
	rest := append(append(line, '\n'), body...)
	return append(fmt.Appendf(nil, "%s%08x\n", keptFormat, crc32.Checksum(rest, crc32.MakeTable(crc32.Castagnoli))), rest...)
}

// decodeKept reads a file; nil when it is none of ours, or not whole.
func decodeKept(raw []byte) *kept {
	const first = len(keptFormat) + 8 + 1
	if len(raw) < first {
		return nil
	}
	rest := raw[first:]
	if string(raw[:first]) != fmt.Sprintf("%s%08x\n", keptFormat, crc32.Checksum(rest, crc32.MakeTable(crc32.Castagnoli))) {
		return nil
	}
	line, body, _ := bytes.Cut(rest, []byte("\n"))
	var head keptHead
	if json.Unmarshal(line, &head) != nil || head.Size < 0 || head.Size > int(largestKept) {
		return nil
	}
	if head.Zstd {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(largestKept)))
		if err != nil {
			return nil
		}
		defer dec.Close()
		if body, err = dec.DecodeAll(body, make([]byte, 0, head.Size)); err != nil {
			return nil
		}
	}
	if len(body) != head.Size {
		return nil
	}
	if head.At == "" {
		head.At = head.Asked
	}
	return &kept{asked: head.Asked, at: head.At, etag: head.ETag, link: head.Link, body: body}
}
