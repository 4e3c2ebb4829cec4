// The installed table, and how a call holds it in place.
#ifndef MXTRT_TABLE_H_
#define MXTRT_TABLE_H_

#include "boundary.h"
#include "bridge.h"

namespace mxtrt {

// Holds the table in place for one call: mxtrt_set_table waits until every holder is gone.
class TableInUse {
 public:
  TableInUse();
  ~TableInUse();
  TableInUse(const TableInUse&) = delete;
  TableInUse& operator=(const TableInUse&) = delete;

  // NULL when Python is detached.
  const MxtrtTable* get() const { return table_; }

 private:
  const MxtrtTable* table_;
};

// Where a function of the table writes its sentence.
struct ErrorText {
  char text[4096] = "";
};

mxnet::ext::MXReturnValue FailWith(const ErrorText& error);

}  // namespace mxtrt

#endif  // MXTRT_TABLE_H_
