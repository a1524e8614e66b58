"""The messages of Fleetwheel. msgspec only: vehicles use this package too."""
