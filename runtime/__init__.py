"""What every process needs: clock, settings, telemetry, orderly start and stop."""
