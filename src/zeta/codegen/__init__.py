"""From a formula to source code: trace and differentiate (`trace`), then print (`cpp`)."""
