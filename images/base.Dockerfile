# Debian's minimal system with Python 3.11, made by debootstrap where no public base image can be pulled.
# Everything else here takes its base as BASE_IMAGE: with a registry at hand, python:3.11-slim-bookworm does.
FROM scratch
ADD rootfs.tar /
ENV LANG=C.UTF-8
CMD ["python3"]
