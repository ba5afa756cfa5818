#include "comm.h"
