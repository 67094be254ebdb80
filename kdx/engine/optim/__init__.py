"""Optimiser steps: updates, schedules, averages."""
