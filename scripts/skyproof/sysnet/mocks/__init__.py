"""Mock skies: imaging templates and null mocks."""
