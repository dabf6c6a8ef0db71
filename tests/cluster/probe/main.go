// A program that tells over HTTP what it is allowed to do in its pod.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type report struct {
	Uid, Gid  int
	Groups    []int
	Seccomp   string // 2: filtered, proc(5)
	Root      string // error of writing to the root file system
	Home      string // error of writing to /home/probe, or what was there before
	Addresses []string
	Fetched   string
}

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { <-stop; os.Exit(0) }()
	http.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	http.HandleFunc("/report", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(look(r.URL.Query().Get("resolve"), r.URL.Query().Get("fetch")))
	})
	log.Print("listening")
	log.Fatal(http.ListenAndServe(":8080", nil))
}

func look(name, url string) report {
	told := report{Uid: os.Getuid(), Gid: os.Getgid(), Root: write("/probe"), Home: home("/home/probe/mark")}
	told.Groups, _ = os.Getgroups()
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if value, found := strings.CutPrefix(line, "Seccomp:"); found {
			told.Seccomp = strings.TrimSpace(value)
		}
	}
	var err error
	if told.Addresses, err = net.LookupHost(name); err != nil {
		told.Addresses = []string{err.Error()}
	}
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		told.Fetched = err.Error()
		return told
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	told.Fetched = string(body)
	return told
}

func write(path string) string {
	if err := os.WriteFile(path, []byte("mark"), 0o600); err != nil {
		return err.Error()
	}
	return ""
}

func home(path string) string {
	if before, err := os.ReadFile(path); err == nil {
		return string(before)
	}
	return write(path)
}
