"""The vehicle's side: compile, bundle, agent, sources, runtimes."""
