"""The world that virtual vehicles and closed-loop evaluation share."""
