// Gitea as a part of the tests: upstream's own module, built from the Go module proxy.
// Upstream's main is not importable, so these lines stand in for it; nothing of Gitea is changed.
package main

import (
	"os"

	"code.gitea.io/gitea/cmd"
	"code.gitea.io/gitea/modules/log"
	"code.gitea.io/gitea/modules/setting"
)

// version is set by -ldflags -X.
var version = "development"

func main() {
	setting.AppVer = version
	app := cmd.NewMainApp(cmd.AppVersion{Version: version})
	err := cmd.RunMainApp(app, os.Args...)
	log.GetManager().Close() // flushes the queued log lines
	if err != nil {
		os.Exit(1)
	}
}
