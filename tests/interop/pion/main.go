// A WHIP publisher and WHEP player on pion, as a stranger to the suite:
//
//	peer publish URL TOKEN IN.ivf IN.ogg      sends VP8 and Opus in a loop until standard input ends
//	peer play URL TOKEN OUT.ivf OUT.ogg       records until standard input ends
//	peer move IN.ivf IN.ogg                   no WHIP: offers and takes answers line by line; see move.go
//
// When the connection ends it begins anew at once. Prints one line of JSON at its end: packets by kind, how often it began anew,
// a player's longest time between two packets of media, and the status of the DELETE.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
	"github.com/pion/webrtc/v4/pkg/media/ivfreader"
	"github.com/pion/webrtc/v4/pkg/media/ivfwriter"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
)

type report struct {
	Video   atomic.Int64 `json:"-"`
	Audio   atomic.Int64 `json:"-"`
	Packets struct {
		Video int64 `json:"video"`
		Audio int64 `json:"audio"`
	} `json:"packets"`
	Reconnects int   `json:"reconnects"`
	LongestMs  int64 `json:"longest_gap_ms"`
	Deleted    int   `json:"deleted"`

	mutex  sync.Mutex
	seenAt time.Time
}

// note that media flows.
func (r *report) note() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if now := time.Now(); !r.seenAt.IsZero() {
		r.LongestMs = max(r.LongestMs, now.Sub(r.seenAt).Milliseconds())
	}
	r.seenAt = time.Now()
}

// kept over connections.
type role struct {
	// Gives a new connection its media.
	attach func(pc *webrtc.PeerConnection) error
	// The connection is up.
	connected func()
	finish    func() error
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 3 && args[0] == "move" {
		return move(args[1], args[2])
	}
	if len(args) != 5 {
		return errors.New("usage: peer publish|play URL TOKEN VIDEO.ivf AUDIO.ogg, or peer move VIDEO.ivf AUDIO.ogg")
	}
	var seen report
	does := play
	if args[0] == "publish" {
		does = publish
	}
	own, err := does(args[3], args[4], &seen)
	if err != nil {
		return err
	}
	isOver := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin) // the test holds it open for as long as it wants
		close(isOver)
	}()
	for seen.Deleted == 0 {
		if seen.Deleted, err = connect(own, args[1], args[2], isOver); err != nil {
			return err
		}
		if seen.Deleted == 0 {
			seen.Reconnects++
		}
	}
	seen.Packets.Video, seen.Packets.Audio = seen.Video.Load(), seen.Audio.Load()
	if err := own.finish(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(&seen)
}

// connect makes a connection and holds it until it ends, or the input does: then it gives the status of the DELETE.
func connect(own *role, endpoint, token string, isOver <-chan struct{}) (int, error) {
	pc, err := newPeer()
	if err != nil {
		return 0, err
	}
	defer pc.Close()
	ended := make(chan struct{})
	var once sync.Once
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			own.connected()
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			once.Do(func() { close(ended) })
		}
	})
	if err := own.attach(pc); err != nil {
		return 0, err
	}
	resource, err := exchange(pc, endpoint, token)
	if err != nil {
		return 0, err
	}
	select {
	case <-ended:
		return 0, nil
	case <-isOver:
		return remove(resource, token)
	}
}

func newPeer() (*webrtc.PeerConnection, error) {
	settings := webrtc.SettingEngine{}
	settings.SetIncludeLoopbackCandidate(true)
	codecs := &webrtc.MediaEngine{}
	if err := codecs.RegisterDefaultCodecs(); err != nil {
		return nil, err
	}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(codecs))
	return api.NewPeerConnection(webrtc.Configuration{})
}

func publish(ivf, ogg string, seen *report) (*role, error) {
	video, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "pion")
	if err != nil {
		return nil, err
	}
	audio, err := webrtc.NewTrackLocalStaticSample(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus}, "audio", "pion")
	if err != nil {
		return nil, err
	}
	var once sync.Once
	var keyframes atomic.Int64
	attach := func(pc *webrtc.PeerConnection) error {
		for _, track := range []*webrtc.TrackLocalStaticSample{video, audio} {
			sender, err := pc.AddTrack(track)
			if err != nil {
				return err
			}
			go answerRequests(sender, &keyframes)
		}
		return nil
	}
	connected := func() {
		keyframes.Add(1)
		once.Do(func() {
			go loop(func() error { return sendIVF(video, ivf, &seen.Video, &keyframes) })
			go loop(func() error { return sendOgg(audio, ogg, &seen.Audio) })
		})
	}
	return &role{attach, connected, func() error { return nil }}, nil
}

func loop(send func() error) {
	for {
		if err := send(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// answerRequests counts a key frame for each that is asked for, until the connection ends.
func answerRequests(sender *webrtc.RTPSender, keyframes *atomic.Int64) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			if _, is := packet.(*rtcp.PictureLossIndication); is {
				keyframes.Add(1)
			}
		}
	}
}

// sendIVF sends a file until it ends or a key frame is wanted: then it begins anew with one, as an encoder would.
func sendIVF(track *webrtc.TrackLocalStaticSample, path string, count, keyframes *atomic.Int64) error {
	present := keyframes.Load()
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader, header, err := ivfreader.NewWith(file)
	if err != nil {
		return err
	}
	every := time.Duration(float64(time.Second) * float64(header.TimebaseNumerator) / float64(header.TimebaseDenominator))
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for range ticker.C {
		if keyframes.Load() != present {
			return nil
		}
		frame, _, err := reader.ParseNextFrame()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := track.WriteSample(media.Sample{Data: frame, Duration: every}); err != nil {
			return err
		}
		count.Add(1)
	}
	return nil
}

func sendOgg(track *webrtc.TrackLocalStaticSample, path string, count *atomic.Int64) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	reader, _, err := oggreader.NewWith(file)
	if err != nil {
		return err
	}
	// One Opus packet a page: the file is written so.
	var last uint64
	next := time.Now()
	for {
		page, header, err := reader.ParseNextPage()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The second header page, and whatever else has no sound.
		if header.GranulePosition == 0 || header.GranulePosition <= last {
			continue
		}
		duration := time.Duration(header.GranulePosition-last) * time.Second / 48000
		last = header.GranulePosition
		if err := track.WriteSample(media.Sample{Data: page, Duration: duration}); err != nil {
			return err
		}
		count.Add(1)
		next = next.Add(duration)
		time.Sleep(time.Until(next))
	}
}

func play(ivf, ogg string, seen *report) (*role, error) {
	video, err := ivfwriter.New(ivf)
	if err != nil {
		return nil, err
	}
	audio, err := oggwriter.New(ogg, 48000, 2)
	if err != nil {
		return nil, err
	}
	var mutex sync.Mutex
	isOver := false
	onTrack := func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		var out media.Writer = audio
		count := &seen.Audio
		if track.Kind() == webrtc.RTPCodecTypeVideo {
			out, count = video, &seen.Video
		}
		for {
			packet, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			count.Add(1)
			seen.note()
			mutex.Lock()
			if !isOver {
				err = out.WriteRTP(packet)
			}
			mutex.Unlock()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	attach := func(pc *webrtc.PeerConnection) error {
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
			direction := webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}
			if _, err := pc.AddTransceiverFromKind(kind, direction); err != nil {
				return err
			}
		}
		pc.OnTrack(onTrack)
		return nil
	}
	finish := func() error {
		mutex.Lock()
		defer mutex.Unlock()
		isOver = true
		return errors.Join(video.Close(), audio.Close())
	}
	return &role{attach, func() {}, finish}, nil
}

// exchange sends the complete offer and takes the answer; it returns the URL of the resource.
func exchange(pc *webrtc.PeerConnection, endpoint, token string) (string, error) {
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		return "", err
	}
	<-gathered
	body := strings.NewReader(pc.LocalDescription().SDP)
	response, err := ask(http.MethodPost, endpoint, token, body)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("%s: %s: %s", endpoint, response.Status, answer)
	}
	base, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	resource, err := base.Parse(response.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	err = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)})
	return resource.String(), err
}

func remove(resource, token string) (int, error) {
	response, err := ask(http.MethodDelete, resource, token, nil)
	if err != nil {
		return 0, err
	}
	response.Body.Close()
	return response.StatusCode, nil
}

func ask(method, where, token string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequest(method, where, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", "application/sdp")
	client := &http.Client{Timeout: 15 * time.Second}
	return client.Do(request)
}
