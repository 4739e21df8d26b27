"""The ways out, one file each. `port.py` says what each must do; `factory.py` makes them from the settings."""
