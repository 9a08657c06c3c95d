package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// A question of `peer move VIDEO.ivf AUDIO.ogg`, one a line on standard input, and its answer on standard output.
type question struct {
	Do      string `json:"do"` // offer, answer, seen
	Restart bool   `json:"restart"`
	SDP     string `json:"sdp"`
}

type answer struct {
	SDP  string  `json:"sdp,omitempty"`
	Seen []int64 `json:"seen,omitempty"` // when pictures ended that were received, Unix ms
}

// keptPictures of those that were received.
const keptPictures = 2000

// move is one connection that sends a file and receives pictures, negotiated by whoever asks.
func move(ivf, ogg string) error {
	pc, err := newPeer()
	if err != nil {
		return err
	}
	defer pc.Close()
	var seen report
	sends, err := publish(ivf, ogg, &seen)
	if err != nil {
		return err
	}
	if err := sends.attach(pc); err != nil {
		return err
	}
	receives := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, receives); err != nil {
		return err
	}
	var pictures pictures
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { pictures.note(track) })
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			sends.connected()
		}
	})
	out := json.NewEncoder(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var asked question
		if err := json.Unmarshal(in.Bytes(), &asked); err != nil {
			return err
		}
		replied, err := reply(pc, &pictures, &asked)
		if err != nil {
			return err
		}
		if err := out.Encode(replied); err != nil {
			return err
		}
	}
	return in.Err()
}

func reply(pc *webrtc.PeerConnection, pictures *pictures, asked *question) (*answer, error) {
	switch asked.Do {
	case "offer":
		offer, err := pc.CreateOffer(&webrtc.OfferOptions{ICERestart: asked.Restart})
		if err != nil {
			return nil, err
		}
		if err := pc.SetLocalDescription(offer); err != nil {
			return nil, err
		}
		return &answer{SDP: pc.LocalDescription().SDP}, nil
	case "answer":
		return &answer{}, pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: asked.SDP})
	case "seen":
		return &answer{Seen: pictures.times()}, nil
	}
	return nil, errors.New("do what? " + asked.Do)
}

type pictures struct {
	mutex sync.Mutex
	at    []int64
}

// note when each picture of a track has come, until it ends.
func (p *pictures) note(track *webrtc.TrackRemote) {
	for {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if !packet.Marker {
			continue
		}
		p.mutex.Lock()
		p.at = append(p.at, time.Now().UnixMilli())
		p.at = p.at[max(0, len(p.at)-keptPictures):]
		p.mutex.Unlock()
	}
}

func (p *pictures) times() []int64 {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return append([]int64(nil), p.at...)
}
