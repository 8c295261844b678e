# All of these also work without make: python3 dev.py film
.PHONY: film test check bench build clean
film test check bench build clean:
	@python3 dev.py $@
