//! Training: optimiser steps, schedules, data, checkpoints.
