// Loads a compose file as the compose tool does, with its own library: schema, interpolation from the environment,
// profiles (COMPOSE_PROFILES), consistency. Prints the names of the services that would start.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithDefaultProfiles())
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			fmt.Println(strings.Join(project.ServiceNames(), "\n"))
			return
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
