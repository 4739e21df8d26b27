"""Machinery around the product: containers, and real servers for machines without Docker. No part of the wheel."""
