package scenario

import "runtime"

// HeapInUse returns the size of the reachable heap in bytes.
func HeapInUse() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func Mebibytes[T int | int64 | float64](bytes T) float64 { return float64(bytes) / (1 << 20) }
