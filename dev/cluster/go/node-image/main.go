// The node's own image: /pause keeps the namespaces of a pod, /volume makes and removes the folder
// of a volume for the local-path provisioner.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	var err error
	switch name := filepath.Base(os.Args[0]); name {
	case "pause":
		pause()
	case "volume":
		err = volume()
	default:
		err = fmt.Errorf("call it as pause or volume, not %s", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pause is process 1 of a pod: it reaps orphans and ends at once when told to.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// volume takes the provisioner's arguments. Any uid may write into the folder: a pod's user is not
// known when its volume is made.
func volume() error {
	path := flag.String("p", "", "the volume's folder")
	action := flag.String("a", "", "create or delete")
	flag.Int64("s", 0, "the volume's size in bytes (not enforced)")
	flag.String("m", "", "the volume's mode (always Filesystem)")
	flag.Parse()
	if !filepath.IsAbs(*path) {
		return fmt.Errorf("-p %q is not an absolute path", *path)
	}
	switch *action {
	case "create":
		if err := os.MkdirAll(*path, 0o777); err != nil {
			return err
		}
		return os.Chmod(*path, 0o777) // whatever the umask
	case "delete":
		return os.RemoveAll(*path)
	}
	return fmt.Errorf("-a %q is neither create nor delete", *action)
}
